-- A creating request whose process died: did it create? The log has what it did, if it committed.
SELECT EXISTS (SELECT FROM audit_log WHERE request_id = $1)
