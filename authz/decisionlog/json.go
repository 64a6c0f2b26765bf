package decisionlog

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// append appends the line as encoding/json writes it, with a line break. encoding/json would take several times as long for
// each check: see authz/decisions/006.
func (l *Line) append(b []byte) []byte {
	b = append(b, `{"decision_id":`...)
	b = appendText(b, l.DecisionID)
	b = append(b, `,"at":"`...)
	b = l.At.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","took_us":`...)
	b = strconv.AppendInt(b, l.TookUS, 10)
	b = append(b, `,"allowed":`...)
	b = strconv.AppendBool(b, l.Allowed)
	if l.Status != 0 {
		b = append(b, `,"status":`...)
		b = strconv.AppendInt(b, int64(l.Status), 10)
	}
	for _, f := range [...]struct{ name, value string }{
		{`,"reason":`, string(l.Reason)}, {`,"dry_run_reason":`, string(l.DryRun)}, {`,"cause":`, l.Cause},
		{`,"key_status":`, l.KeyStatus}, {`,"key_id":`, l.KeyID}, {`,"key_hint":`, l.KeyHint}, {`,"lineage":`, l.Lineage},
		{`,"token_status":`, l.Token}, {`,"token_fault":`, l.TokenFault},
		{`,"token_id":`, l.TokenID}, {`,"issuer":`, l.Issuer}, {`,"subject":`, l.Subject}, {`,"client":`, l.Client},
		{`,"account":`, l.Account}, {`,"plan":`, l.Plan},
	} {
		b = appendField(b, f.name, f.value)
	}
	b = appendCharge(b, l.Charge)
	b = appendField(b, `,"rid":`, l.RID)
	if l.Seq != 0 {
		b = append(b, `,"seq":`...)
		b = strconv.AppendUint(b, l.Seq, 10)
	}
	for _, f := range [...]struct{ name, value string }{
		{`,"method":`, l.Method}, {`,"host":`, l.Host}, {`,"path":`, l.Path}, {`,"path_fault":`, l.PathFault},
		{`,"route":`, l.Route}, {`,"peer":`, l.Peer}, {`,"request_id":`, l.RequestID}, {`,"policy":`, l.Policy},
	} {
		b = appendField(b, f.name, f.value)
	}
	if len(l.PolicyErrors) > 0 {
		b = append(b, `,"policy_errors":[`...)
		for i, text := range l.PolicyErrors {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendText(b, text)
		}
		b = append(b, ']')
	}
	return append(b, "}\n"...)
}

func appendCharge(b []byte, charge authz.Charge) []byte {
	if len(charge) == 0 {
		return b
	}
	b = append(b, `,"charge":{`...)
	for i, name := range slices.Sorted(maps.Keys(charge)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, name)
		b = append(b, ':')
		b = strconv.AppendInt(b, charge[name], 10)
	}
	return append(b, '}')
}

func appendField(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendText(append(b, name...), value)
}

// appendText appends a JSON string. It leaves texts with special characters to encoding/json.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // texts always encode
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
