//! Watches resources, plans, places runtimes, writes status.
