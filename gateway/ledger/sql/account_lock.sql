-- Whoever tells Redis about an account does so alone, so that the last to tell has read all that was committed.
SELECT id FROM accounts WHERE id = $1 FOR UPDATE
