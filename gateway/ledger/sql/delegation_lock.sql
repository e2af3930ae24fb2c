-- Whoever changes the tree of an account's keys does so alone; calls and settlements do not wait.
SELECT id FROM accounts WHERE id = $1 FOR NO KEY UPDATE
