# The machinery has moved up, to all start scripts: see there. This is for those that still look for it here.
# shellcheck source=../server.bash
source "$(dirname "${BASH_SOURCE[0]}")/../server.bash"
