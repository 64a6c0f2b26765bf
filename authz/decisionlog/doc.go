// Package decisionlog writes what was decided and why, one JSON object a line. It never delays a check: a line that cannot be
// taken at once is dropped and counted. It writes no header but x-request-id, no query string and no body. A cause is in the
// policy engine's own words, which may quote values that a rule worked on.
//
// Read log.go first, then line.go for what a line holds, and writer.go with file.go for how lines reach the disk.
package decisionlog
