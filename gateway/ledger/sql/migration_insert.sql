-- In the transaction of the migration itself: applied and recorded, or neither.
INSERT INTO migrations (version, name) VALUES ($1, $2)
