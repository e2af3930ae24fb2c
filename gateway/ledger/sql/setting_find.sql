-- A fact fixed earlier, if it was.
SELECT value FROM settings WHERE name = $1
