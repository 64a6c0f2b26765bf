package check

import (
	"encoding/hex"
	"math/rand/v2"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// evaluation is the state of one check. It belongs to one goroutine.
type evaluation struct {
	*Checker
	id      string // of the decision
	request *authz.Request
	began   time.Time
	rules   *Rules // nil before the first Use

	credentials  credentials
	facts        authz.Facts
	plan         string // of the caller, "" if no caller is known
	holder       authz.Holder
	limits       []authz.Limit
	verdict      authz.Verdict
	policyErrors []string // of the latest verdict
	held         heldCharge
	charge       authz.Charge // the charge of held
	wanted       authz.Charge // the latest charge that could not be reserved

	decision     authz.Decision
	dryRunReason authz.Reason
	cause        string

	memory
}

// record records the decision. If the recorder panics, the answer is sent all the same.
func (e *evaluation) record() {
	defer func() { _ = recover() }()
	e.entry = Entry{
		At: e.began, Took: e.opt.Now().Sub(e.began), Request: e.request, Facts: &e.facts, Decision: &e.decision,
		Plan: e.plan, Charge: e.charge, Cause: e.cause, DryRunReason: e.dryRunReason, PolicyErrors: e.policyErrors,
		KeyHint: keyHint(e.facts.Key.Status, e.credentials.key, e.opt.HintKey),
	}
	if len(e.charge) > 0 {
		e.entry.Reservation = e.held.ID()
	}
	if e.rules != nil {
		e.entry.Revision = e.rules.Policy.Revision()
	}
	e.recorder.Record(&e.entry)
}

// newID makes a random UUID (RFC 9562 section 5.4). It is a name, not a secret.
func newID() string {
	var b [16]byte
	hi, lo := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		b[i], b[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var text [36]byte
	hex.Encode(text[:8], b[:4])
	hex.Encode(text[9:13], b[4:6])
	hex.Encode(text[14:18], b[6:8])
	hex.Encode(text[19:23], b[8:10])
	hex.Encode(text[24:], b[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}
