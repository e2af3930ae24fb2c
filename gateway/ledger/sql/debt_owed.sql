-- What an account owes; no row: it never owed anything.
SELECT owed_microcredits FROM account_debts WHERE account_id = $1
