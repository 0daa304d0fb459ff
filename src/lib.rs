//! Mercury backs up and restores any workload on a computer.
