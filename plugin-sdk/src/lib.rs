//! What a workload plugin is written against, and the stable boundary that it crosses.
