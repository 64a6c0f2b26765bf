// Package input makes the document that policies read as input: the request in the shapes of OPA's Envoy plugin, and
// the facts beside it. It makes only the parts that some rule refers to.
//
// One walk over request and facts feeds a sink, and there are two sinks: one makes values for OPA's evaluator, the other
// the key under which a verdict is cached. So two requests with one key have one document.
//
// Read sink.go, then request.go and facts.go (the walk), then refs.go (the parts that a policy reads).
package input
