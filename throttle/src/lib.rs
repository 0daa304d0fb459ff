//! Admission control: atomic claims, class rules, priorities and byte rates.
