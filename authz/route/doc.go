// Package route is the table of routes: which entry of routes.yaml applies to a request.
package route
