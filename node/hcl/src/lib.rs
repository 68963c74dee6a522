//! HCL 1 and JSON configuration text, with the line of every value.
