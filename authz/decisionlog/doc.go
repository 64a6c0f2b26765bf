// Package decisionlog writes what was decided and why, one JSON object a line. It never delays a check: if there
// is no room for a line, the line is dropped and counted. The log has no headers except x-request-id, no query strings and no
// bodies. A cause is the policy engine's own text, which may quote values that a rule worked on.
//
// Read log.go first, then line.go for what a line holds, and writer.go with file.go for how lines reach the disk. Package audit reads
// lines again.
package decisionlog
