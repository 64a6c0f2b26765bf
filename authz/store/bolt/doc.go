// Package bolt keeps keys, revocations and quotas in one file, with bbolt: nothing to install, and safe against crashes.
//
// Every write is on disk before it is acknowledged. Writes that wait at the same time share one transaction. Keys and accounts in
// use are also held in memory, so that looking them up does no I/O. Memory is changed after the disk and before the
// acknowledgement: after a key was switched off, no check sees it switched on. One process at a time uses the file.
//
// There are two lanes. Keys and revocations are written to the file: two fsyncs, and 4 kB for each page that leads to a change. A
// verb of the ledger would cost the same for each caller who comes once in a while, so the ledger is written to a write-ahead log
// first, in a folder beside the file:
//
//  1. A group of verbs runs. What it reads is in the overlay, a map of what the log has and the file has not, or in the file.
//  2. What it changes is one record, which is appended to the log: one write of a multiple of 512 bytes, and no other sync.
//  3. The record is added to the overlay, and the verbs are acknowledged.
//  4. Some minutes later, or when the overlay is large, the mover writes it to the file in the order of its keys, so that a page is
//     written once for many callers. Then it drops the records from the overlay, and their segments from the log.
//
// Close moves everything and removes the log: the file alone is a backup of a server that was stopped. While a server runs, and
// after it was killed, file and log belong together. The file says so, and Open refuses it without its log. A snapshot of the disk
// has both as they were at one instant; a copy that is made file by file under a running server is no backup.
//
// Read layout.go for the buckets of the file, commit.go for the life of a write with its crash points, filelane.go and loglane.go
// for the two lanes, mover.go for the way from the log into the file, keycache.go for what is read when memory does not hold it,
// keytrees.go for the way in which checks read the file, and upgrade.go for older files. ledger.go, keys.go and revocations.go then
// implement the three contracts, a few lines a verb.
package bolt
