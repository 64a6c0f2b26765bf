// Package telemetry has Tollkeeper's metrics. They are values, registered where the caller says: there are no globals.
//
// Read telemetry.go first: Record counts each check. routes.go counts them by route.
package telemetry
