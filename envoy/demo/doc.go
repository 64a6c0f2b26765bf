// Command demo shows the product with real parts: an Envoy with the shipped configuration, a Tollkeeper, a service behind
// them and an issuer of tokens. It tells a story in requests, and compares every answer with the expected one. Then it leaves
// everything running, or ends with DEMO_ONCE=1.
//
// story.go has the chapters, main.go starts and stops the parts.
package main
