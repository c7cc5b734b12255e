//! Servers beside the test: they are started, answer, are killed, and say loudly when they can't be had. Only dynoxide's is
//! expected to keep what it acknowledged.
