// Package pagefile checks the pages of a bbolt file on its bytes, without bbolt.
//
// bbolt trusts its file. On a page that points at itself it recurses until the process dies, on one that points outside it
// reads memory that is not there, and it overwrites a page that is in use and also on the list of free ones. Its own check
// walks the file in the same way, and dies of the same damage: authz/decisions/003 has the numbers.
//
// Read check.go for the walk, and layout.go for the format.
package pagefile
