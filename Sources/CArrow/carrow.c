// The header is all there is to this target; a target needs a source.
#include "carrow.h"
