//! Two installations with directories of their own, as on two machines.
