// Package model finds out what configurations mean: which listeners accept requests, which filters ask Tollkeeper, which routes
// change that, and what Istio, Envoy Gateway and Kubernetes do with their objects. It does not judge them.
//
// Read model.go first: Build makes a Model from files. Then read extauthz.go: every way to configure the check becomes an
// ExtAuthz, and fields.go has the names of its fields for each way. listener.go and route.go find out which requests are checked.
// table.go reads Tollkeeper's tables of routes, pattern.go and methods.go say which requests they name, and meet.go compares them with
// Envoy's routes.
package model
