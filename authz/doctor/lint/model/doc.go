// Package model says what configurations mean: which listeners take requests, which filters ask Tollkeeper, what every
// route does with them, and what Istio, Envoy Gateway and Kubernetes make of their objects. It judges nothing.
//
// Read model.go first: a Model is built from files. extauthz.go holds ExtAuthz, the one form of a check however it is
// configured, and fields.go the names of its fields in each way. listener.go and route.go say which requests are checked.
package model
