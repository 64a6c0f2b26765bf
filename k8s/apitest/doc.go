// Package apitest tests the manifests in k8s. Kustomize builds every folder, every object decodes strictly into its real
// API type, objects that refer to each other agree, the configuration starts the binary, Envoy runs with it, and the
// commands of the README work from top to bottom.
//
// It is a module of its own, so that the types of Kubernetes, Istio and Envoy Gateway stay out of the program's go.mod.
//
// Read build_test.go first: it builds an overlay into a world of typed objects. manifests_test.go lists the agreements
// between them and the mistakes that each has to notice; page_test.go runs the README against the stand-in for a cluster
// in standin_test.go.
package apitest
