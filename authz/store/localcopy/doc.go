// Package localcopy keeps what a node knows of a store in a file, so that the node can start while the store cannot be reached.
//
// A file is a sequence of entries, whose meaning the caller knows, and of marks: at this time, all entries up to here were complete
// up to this position in the store's feed. It is written whole at first, under another name until it is complete, and then grows by
// what changes. Each entry carries a checksum of the whole file up to it, so that what a crash has left half-written, at the end or
// in the middle, is cut off, and the last mark before it counts. Nothing is synced after the beginning: an older mark only makes the
// copy older than it could be.
//
// Read write.go for the form of the file, and read.go.
package localcopy
