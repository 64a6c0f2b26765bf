package wire

import "github.com/tollkeeper-authz/tollkeeper/authz"

// AppendResponse appends a decision as a CheckResponse. It is the only place where one is made. Envoy lets a request pass
// whenever the status code is 0, even if no status is set or a denied_response stands beside it, so the code is 0 only in
// the branch of an allow.
//
// Empty fields are left out, which protobuf reads as the same.
func AppendResponse(b []byte, d *authz.Decision) []byte {
	if d.Allowed() {
		b, start := begin(append(b, statusOK...), checkResponseOK)
		b = appendAllow(b, d)
		return appendMetadata(end(b, start), &d.Answer)
	}
	b, start := begin(append(b, statusDenied...), checkResponseDenied)
	b = appendDenial(b, d)
	return appendMetadata(end(b, start), &d.Answer)
}

// The status of a response, with its code.
var (
	statusOK     = appendStatus(nil, codeOK)
	statusDenied = appendStatus(nil, codePermissionDenied)
)

func appendStatus(b []byte, code uint64) []byte {
	b, start := begin(b, checkResponseStatus)
	if code != codeOK {
		b = appendNumber(b, statusCode, code)
	}
	return end(b, start)
}

func appendAllow(b []byte, d *authz.Decision) []byte {
	b = appendHeaders(b, okHeaders, d.Headers, toUpstream)
	b = appendTexts(b, okHeadersToRemove, d.RemoveRequestHeaders)
	b = appendHeaders(b, okResponseHeadersToAdd, d.ResponseHeaders, toClient)
	for _, p := range d.SetQueryParameters {
		b = appendPair(b, okQueryParametersSet, p)
	}
	return appendTexts(b, okQueryParametersRemove, d.RemoveQueryParameters)
}

func appendDenial(b []byte, d *authz.Decision) []byte {
	b, start := begin(b, deniedStatus)
	b = end(appendNumber(b, httpStatusCode, uint64(d.HTTPStatus())), start)
	b = appendHeaders(b, deniedHeaders, d.Headers, toDenied)
	if !d.Headers.Has("x-authz-reason") {
		b = appendHeaders(b, deniedHeaders, authz.Headers{{Name: "x-authz-reason", Value: string(d.DeniedFor())}}, toDenied)
	}
	return appendText(b, deniedBody, d.Body)
}

// destination is where headers go. Envoy treats further values of one name differently in each.
type destination int

const (
	toUpstream destination = iota // Envoy appends values after the first to it, with commas
	toClient                      // of an allowed request: a value that is set replaces the ones before it
	toDenied                      // to the client of a denied request: all values are set and stay apart
)

// appendHeaders writes headers. Our values replace those that are there. Several values of one name reach each destination
// whole, in the way that works there.
func appendHeaders(b []byte, t tag, in authz.Headers, to destination) []byte {
	for i, h := range in {
		add := to == toUpstream && in[:i].Has(h.Name) || to == toClient && (in[:i].Has(h.Name) || in[i+1:].Has(h.Name))
		var start int
		b, start = begin(b, t)
		b = appendPair(b, optionHeader, h)
		if add {
			b = append(b, addHeader...)
		} else {
			b = append(b, setHeader...)
		}
		b = end(b, start)
	}
	return b
}

// What a header does to one that is there: append (a BoolValue) and append_action. Both are written because each release of
// Envoy obeys one of them, and with the wrong one alone a client's value survives. The action of appending is 0, so it is
// not written.
var (
	addHeader = []byte{byte(optionAppend), 2, byte(boolValue), 1}
	setHeader = []byte{byte(optionAppend), 0, byte(optionAppendAction), overwriteIfExistsOrAdd}
)

// appendPair writes a message of a name and a value: a header or a query parameter.
func appendPair(b []byte, t tag, h authz.Header) []byte {
	b, start := begin(b, t)
	b = appendText(b, pairName, h.Name)
	return end(appendText(b, pairValue, h.Value), start)
}

func appendTexts(b []byte, t tag, in []string) []byte {
	for _, s := range in {
		b = appendString(b, t, s)
	}
	return b
}
