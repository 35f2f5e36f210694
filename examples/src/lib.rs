//! The examples are in the files beside this folder; there is nothing to depend on here.
