// Package openapi reads the operations of an OpenAPI 3.0 or 3.1 document as entries of routes.yaml.
//
// Start with read.go: it goes from the document to path items and operations. The parts of a route come from
// template.go (the path), servers.go (what stands before the path), security.go (the scopes) and extension.go (x-tollkeeper).
// refs.go follows $ref, and tree.go knows lines, duplicate keys and YAML aliases.
//
// Only what plays a part in routing is read. A bad schema or example does not refuse a document, but where a part that is read is
// wrong, or would be ignored in silence, the document is refused: a route that is left out, or read in another way than its
// author meant, can leave a path open.
package openapi
