-- Who changes what is sold looks at all of it first, and then changes it alone. Taken before any
-- other lock.
SELECT version FROM catalog_state FOR UPDATE
