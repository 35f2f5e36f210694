//! Which rows, in which order, read how: the plan (pure) and the pipeline.
