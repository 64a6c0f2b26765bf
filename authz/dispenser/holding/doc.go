// Package holding counts the units of one bucket that a node holds. Many goroutines take from a Holding at once and none
// waits for another: a lock there would stop every request of a busy caller while the goroutine that has it is interrupted.
// The version with a lock is in the tests, as the oracle. What the device buys is authz/decisions/010-units-without-a-lock.md.
//
// Read holding.go for what may run at any time, then locked.go for what needs a lock of the caller's.
package holding
