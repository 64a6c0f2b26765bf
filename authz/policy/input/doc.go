// Package input makes the document that policies read as input: the request in the shapes of OPA's Envoy plugin, and
// the facts. It makes only the parts that some rule refers to.
//
// One walk over request and facts feeds a sink. There are two sinks: one makes values for OPA's evaluator, the other makes the
// key of a cached verdict. So two requests with equal keys have equal documents.
//
// Read sink.go, then request.go and facts.go (the walk), then refs.go (the parts that a policy reads).
package input
