// Package bolt keeps keys, revocations and quotas in one file, with bbolt: nothing to install, and safe against crashes.
//
// Every write is on disk before it is acknowledged. Writes that wait at the same time share one transaction, and so one fsync.
// Keys and accounts in use are also held in memory, so that looking them up does no I/O. Memory is changed after the disk and
// before the acknowledgement: after a key was switched off, no check sees it switched on. One process at a time uses the file.
//
// Read layout.go for the buckets of the file, commit.go for the life of a write with its crash points, and keycache.go for what
// is held in memory. ledger.go, keys.go and revocations.go then implement the three contracts, a few lines a verb.
package bolt
