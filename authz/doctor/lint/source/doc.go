// Package source reads YAML and JSON documents and keeps the position of every value, so that a finding can name a file, a
// line and a path.
//
// Read location.go first: a Location is what all rules hold in their hands. document.go reads documents, from yaml.go and
// json.go. typed.go knows how protobuf messages are written in them.
package source
