-- One plan of a platform.
SELECT spec FROM plans WHERE platform_id = $1 AND slug = $2
