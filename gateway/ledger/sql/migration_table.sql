-- Whether the database was ever migrated; asking the table itself would fail.
SELECT to_regclass('migrations') IS NOT NULL
