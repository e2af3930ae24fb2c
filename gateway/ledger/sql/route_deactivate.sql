-- Out of the config is out of service, never deleted: settlements name it.
UPDATE routes SET active = false WHERE id = $1
