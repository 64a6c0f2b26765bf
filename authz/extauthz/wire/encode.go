package wire

import "github.com/tollkeeper-authz/tollkeeper/authz"

// AppendResponse appends a decision as a CheckResponse. No other function makes one. Envoy lets a request pass whenever the
// status code is 0, even if no status is set or there is a denied_response. So only the branch of an allow sets code 0.
//
// Empty fields are left out, as protobuf does.
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

// destination is where headers go. Each handles several values of one name differently.
type destination int

const (
	toUpstream destination = iota // Envoy appends values after the first to it, with commas
	toClient                      // of an allowed request: a value that is set replaces the ones before it
	toDenied                      // to the client of a denied request: all values are set and stay apart
)

// appendHeaders writes headers. They replace headers that the message already has. If a name has several values, all of them
// reach the destination.
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

// These say whether a header is added to headers of the same name or replaces them: append (a BoolValue) and append_action. Each
// release of Envoy obeys only one of the two, and without that one a client's value would stay, so both are written. The action
// that appends is 0, so it is not written.
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
