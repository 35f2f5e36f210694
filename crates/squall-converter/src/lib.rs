//! DataFrame to dataset: plans, writes, commits.
