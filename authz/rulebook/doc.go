// Package rulebook keeps the rules by which checks are decided: the policies, the routes, the plans and the table of reasons. It loads
// them at the start, reloads them when their files change, and decides whether a new version may replace the one in force.
// A version that cannot be loaded, or that lacks a plan, limit or reason in use, changes nothing and is reported.
//
// Read book.go first: the life of a Book and the two answers to a new version, accept and refuse. Then faults.go, which reads
// routes, plans and reasons and says where they are wrong, older.go, which knows files of older versions, removed.go, which
// compares a new version with the one in force, and kept.go, which saves the last good version for the next start.
package rulebook
