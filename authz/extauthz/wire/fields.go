package wire

import "google.golang.org/protobuf/encoding/protowire"

// tag precedes a field in a message. It is the field's number, shifted above its wire type
// (protobuf.dev/programming-guides/encoding). A known field that comes with another wire type counts as an unknown one, so
// a switch on tags reads a message as protobuf does.
type tag uint64

// The wire types of the fields that are read and written here.
const (
	varintType  = tag(protowire.VarintType)
	fixed64Type = tag(protowire.Fixed64Type)
	bytesType   = tag(protowire.BytesType) // a text, bytes or a message
)

// The entries of every map.
const (
	entryKey   = 1<<3 | bytesType
	entryValue = 2<<3 | bytesType
)

// envoy.service.auth.v3.CheckRequest
const checkRequestAttributes = 1<<3 | bytesType

// envoy.service.auth.v3.AttributeContext
const (
	attributesSource            = 1<<3 | bytesType
	attributesDestination       = 2<<3 | bytesType
	attributesRequest           = 4<<3 | bytesType
	attributesContextExtensions = 10<<3 | bytesType
	attributesMetadataContext   = 11<<3 | bytesType
	attributesTLSSession        = 12<<3 | bytesType
	attributesRouteMetadata     = 13<<3 | bytesType
)

// envoy.service.auth.v3.AttributeContext.TLSSession
const tlsSNI = 1<<3 | bytesType

// envoy.service.auth.v3.AttributeContext.Request
const (
	requestTime = 1<<3 | bytesType
	requestHTTP = 2<<3 | bytesType
)

// google.protobuf.Timestamp
const (
	timestampSeconds = 1<<3 | varintType
	timestampNanos   = 2<<3 | varintType
)

// envoy.service.auth.v3.AttributeContext.HttpRequest
const (
	httpID        = 1<<3 | bytesType
	httpMethod    = 2<<3 | bytesType
	httpHeaders   = 3<<3 | bytesType
	httpPath      = 4<<3 | bytesType
	httpHost      = 5<<3 | bytesType
	httpScheme    = 6<<3 | bytesType
	httpQuery     = 7<<3 | bytesType
	httpFragment  = 8<<3 | bytesType
	httpSize      = 9<<3 | varintType
	httpProtocol  = 10<<3 | bytesType
	httpBody      = 11<<3 | bytesType
	httpRawBody   = 12<<3 | bytesType
	httpHeaderMap = 13<<3 | bytesType
)

// envoy.config.core.v3.HeaderMap
const headerMapHeaders = 1<<3 | bytesType

// envoy.config.core.v3.HeaderValue
const (
	headerKey      = 1<<3 | bytesType
	headerValue    = 2<<3 | bytesType
	headerRawValue = 3<<3 | bytesType
)

// envoy.service.auth.v3.AttributeContext.Peer
const (
	peerAddress     = 1<<3 | bytesType
	peerService     = 2<<3 | bytesType
	peerLabels      = 3<<3 | bytesType
	peerPrincipal   = 4<<3 | bytesType
	peerCertificate = 5<<3 | bytesType
)

// envoy.config.core.v3.Address
const (
	addressSocket   = 1<<3 | bytesType
	addressPipe     = 2<<3 | bytesType
	addressInternal = 3<<3 | bytesType
)

// envoy.config.core.v3.SocketAddress
const (
	socketProtocol         = 1<<3 | varintType
	socketAddress          = 2<<3 | bytesType
	socketPort             = 3<<3 | varintType
	socketNamedPort        = 4<<3 | bytesType
	socketResolverName     = 5<<3 | bytesType
	socketIPv4Compat       = 6<<3 | varintType
	socketNetworkNamespace = 7<<3 | bytesType
)

// envoy.config.core.v3.Pipe
const (
	pipePath = 1<<3 | bytesType
	pipeMode = 2<<3 | varintType
)

// envoy.config.core.v3.EnvoyInternalAddress
const (
	internalServerListenerName = 1<<3 | bytesType
	internalEndpointID         = 2<<3 | bytesType
)

// envoy.config.core.v3.Metadata
const (
	metadataFilter = 1<<3 | bytesType
	metadataTyped  = 2<<3 | bytesType
)

// google.protobuf.Any
const (
	anyTypeURL = 1<<3 | bytesType
	anyValue   = 2<<3 | bytesType
)

// google.protobuf.Struct, ListValue and Value
const (
	structFields = 1<<3 | bytesType
	listValues   = 1<<3 | bytesType

	valueNull   = 1<<3 | varintType
	valueNumber = 2<<3 | fixed64Type
	valueString = 3<<3 | bytesType
	valueBool   = 4<<3 | varintType
	valueStruct = 5<<3 | bytesType
	valueList   = 6<<3 | bytesType
)

// envoy.service.auth.v3.CheckResponse
const (
	checkResponseStatus   = 1<<3 | bytesType
	checkResponseDenied   = 2<<3 | bytesType
	checkResponseOK       = 3<<3 | bytesType
	checkResponseMetadata = 4<<3 | bytesType
)

// google.rpc.Status, and two values of google.rpc.Code
const (
	statusCode = 1<<3 | varintType

	codeOK               = 0
	codePermissionDenied = 7
)

// envoy.service.auth.v3.OkHttpResponse
const (
	okHeaders               = 2<<3 | bytesType
	okHeadersToRemove       = 5<<3 | bytesType
	okResponseHeadersToAdd  = 6<<3 | bytesType
	okQueryParametersSet    = 7<<3 | bytesType
	okQueryParametersRemove = 8<<3 | bytesType
)

// envoy.service.auth.v3.DeniedHttpResponse
const (
	deniedStatus  = 1<<3 | bytesType
	deniedHeaders = 2<<3 | bytesType
	deniedBody    = 3<<3 | bytesType
)

// envoy.type.v3.HttpStatus
const httpStatusCode = 1<<3 | varintType

// envoy.config.core.v3.HeaderValueOption, and the google.protobuf.BoolValue in it
const (
	optionHeader       = 1<<3 | bytesType
	optionAppend       = 2<<3 | bytesType
	optionAppendAction = 3<<3 | varintType
	boolValue          = 1<<3 | varintType

	// overwriteIfExistsOrAdd is a value of append_action. The value for appending is 0.
	overwriteIfExistsOrAdd = 2
)

// A pair is a HeaderValue, or an envoy.config.core.v3.QueryParameter, which has the same numbers.
const (
	pairName  = headerKey
	pairValue = headerValue
)
