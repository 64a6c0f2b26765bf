// Package source reads YAML and JSON documents and keeps the position of every value, so that a finding can name a file, a
// line and a path.
//
// Read location.go first: all rules work with Locations. document.go reads documents with yaml.go and json.go. typed.go reads
// protobuf messages in documents.
package source
