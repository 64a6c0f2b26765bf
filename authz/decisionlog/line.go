package decisionlog

import (
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

// Line is one decision as it is written.
type Line struct {
	DecisionID string       `json:"decision_id"`
	At         time.Time    `json:"at"`
	TookUS     int64        `json:"took_us"`
	Allowed    bool         `json:"allowed"`
	Status     int          `json:"status,omitempty"`
	Reason     authz.Reason `json:"reason,omitempty"`
	DryRun     authz.Reason `json:"dry_run_reason,omitempty"`
	Cause      string       `json:"cause,omitempty"`
	KeyStatus  string       `json:"key_status,omitempty"`
	KeyID      string       `json:"key_id,omitempty"`
	KeyHint    string       `json:"key_hint,omitempty"` // see check.Entry
	Lineage    string       `json:"lineage,omitempty"`  // of the key, if it is not its id
	Token      string       `json:"token_status,omitempty"`
	TokenFault string       `json:"token_fault,omitempty"`
	TokenID    string       `json:"token_id,omitempty"`
	Issuer     string       `json:"issuer,omitempty"`
	Subject    string       `json:"subject,omitempty"`
	Client     string       `json:"client,omitempty"` // of a token that names no subject
	Account    string       `json:"account,omitempty"`
	Plan       string       `json:"plan,omitempty"`
	Charge     authz.Charge `json:"charge,omitempty"`
	// RID is the reservation of the charge. It begins with the node that took it, and lines that share it were charged once.
	// Seq numbers the lines with a charge of a node, from 1. So whoever adds them up sees whether all are there.
	RID       string `json:"rid,omitempty"`
	Seq       uint64 `json:"seq,omitempty"`
	Method    string `json:"method,omitempty"`
	Host      string `json:"host,omitempty"`
	Path      string `json:"path,omitempty"`
	PathFault string `json:"path_fault,omitempty"` // an authz.PathFault
	Route     string `json:"route,omitempty"`      // its name; "" if none applies
	Peer      string `json:"peer,omitempty"`       // the client of the proxy: an IP address, or the path of a socket
	RequestID string `json:"request_id,omitempty"`
	Policy    string `json:"policy,omitempty"`

	// PolicyErrors tell which functions of the policy failed, as file:line: text.
	PolicyErrors []string `json:"policy_errors,omitempty"`
}

func lineOf(e *check.Entry) Line {
	line := Line{
		DecisionID: e.Decision.ID, At: e.At.UTC(), TookUS: e.Took.Microseconds(), Allowed: e.Decision.Allowed(),
		Status: e.Decision.HTTPStatus(), Reason: e.Decision.DeniedFor(), DryRun: e.DryRunReason, Cause: e.Cause,
		KeyStatus: string(e.Facts.Key.Status), KeyID: e.Facts.Key.ID, KeyHint: e.KeyHint, Account: e.Facts.Account.ID, Plan: e.Plan,
		Charge: e.Charge, RID: e.Reservation, Policy: e.Revision, PolicyErrors: e.PolicyErrors, Peer: peerOf(e.Request),
		PathFault: string(e.Facts.Path.Fault), Route: e.Facts.Route.RouteName(),
	}
	if k := &e.Facts.Key; k.Lineage != k.ID {
		line.Lineage = k.Lineage
	}
	if t := &e.Facts.Token; t.Status != authz.TokenMissing {
		line.Token, line.TokenFault, line.TokenID, line.Issuer, line.Subject = string(t.Status), t.Fault, t.ID, t.Issuer, t.Subject
		if t.Subject == "" {
			line.Client = t.Client
		}
	}
	if h := e.Request.HTTP; h != nil {
		line.Method, line.Host, line.RequestID = h.Method, h.Host, h.Headers.Get("x-request-id")
		line.Path, _, _ = strings.Cut(h.Path, "?")
	}
	return line
}

// peerOf is the address of the client as the proxy reports it, "" if it is unknown.
func peerOf(r *authz.Request) string {
	if r.Source == nil || r.Source.Address == nil {
		return ""
	}
	switch a := r.Source.Address; {
	case a.Socket != nil:
		return a.Socket.Address
	case a.Pipe != nil:
		return a.Pipe.Path
	case a.Internal != nil:
		return a.Internal.ServerListenerName
	}
	return ""
}
