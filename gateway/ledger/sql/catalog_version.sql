-- Which changes a snapshot holds.
SELECT version FROM catalog_state
