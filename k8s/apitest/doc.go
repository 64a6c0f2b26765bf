// Package apitest tests the manifests in k8s: that kustomize builds them, that every object is one that the real API
// types take to the letter, that objects which refer to each other agree, that the configuration in them starts the
// binary, that Envoy runs with what they give it, and that the README can be followed from top to bottom.
//
// It is a module of its own, so that the types of Kubernetes, Istio and Envoy Gateway stay out of the requirements of the
// binary.
package apitest
