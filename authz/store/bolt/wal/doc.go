// Package wal is a write-ahead log: numbered records in files of one folder, each of which is on disk when Append returns. It
// does not know what the records mean.
//
// The folder has numbered segments. A segment begins with a header, and then has frames, each of which holds one record:
//
//	header  magic 8 bytes, alignment 4, reserved 4, id of the data file 16, nonce 8, checksum 4
//	frame   nonce 8 bytes, sequence number 8, length of the record 4, checksum 4, the record
//
// Numbers are little-endian, checksums are CRC-32C. The sequence number rises by one from record to record over all segments.
// The nonce is a random number of the segment: a file is used again for later segments, and what an earlier one left in it is
// never taken for a frame. Headers and frames are filled up to the alignment, so that no write touches a block that an
// earlier frame is in.
//
// A record is written with one call, directly and synchronously, into space that was written before: the disk is told once, the
// file system has nothing to note down, and 512 bytes are written for a short record. Writes through the page cache cost 4 kB
// each. Preparing a segment costs several calls, and is done in the background before the one in use is full.
//
// Read frame.go for the format, log.go for the life of a record, and read.go for what a crash may leave behind.
package wal
