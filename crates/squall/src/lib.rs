//! The data loader for tables: convert with DataFusion, read with exactly-once order, train on many ranks.
