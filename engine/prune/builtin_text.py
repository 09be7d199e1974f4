"""A text of many kinds, written for this project, to measure importance on where none is given."""

BUILTIN_TEXT = """\
The ferry left at ten past six, while the lamps along the quay were still burning. Anna stood at \
the rail with both hands around a paper cup and watched the town turn slowly until the church \
hid the school and the school hid the house in which she had lived for nineteen years. Nobody \
waved. Her brother had said goodbye the evening before, in the kitchen, with his coat on, and \
had then stayed another two hours talking about the roof. She thought of that now, and laughed, \
and the man beside her looked up from his newspaper as if she had asked him something.

"Is this your first crossing?" he said.

"No," she answered. "But it is the first time that I have not bought a return."

Concrete hardens because cement reacts with water, not because it dries. If the surface loses \
its water too early, the reaction stops there and the outermost millimetres stay weak; they \
dust, and in the first winter they scale. That is why a slab is kept wet, or covered with foil, \
for at least seven days. In summer the same work should begin at dawn. The strength that is \
written on the delivery note is reached after twenty-eight days at twenty degrees; at five \
degrees it takes more than twice as long.

def median(values):
    ordered = sorted(values)
    if not ordered:
        raise ValueError("the median of nothing is not defined")
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2

Minutes of the meeting of 14 March. Present: Mrs. Okafor (chair), Mr. Lindqvist, Dr. Harris, Ms. \
Tanaka. Apologies: Mr. Brandt. 1. The minutes of 12 February were approved. 2. The treasurer \
reported a balance of 4,312.60, of which 1,500 are set aside for the boiler. 3. Dr. Harris asked \
whether the reading room could stay open until nine on Thursdays. After some discussion it was \
agreed to try this from April to June, with volunteers; Ms. Tanaka will draw up a list. 4. Any \
other business: the gutter above the side door leaks again.

The river Tarn rises at a height of 1,550 metres on the southern slope of Mont Lozère and flows \
west for 380 kilometres before it joins the Garonne. Between Florac and Millau it has cut a \
gorge up to 600 metres deep into the limestone. Villages there were supplied by mule until the \
road was finished in 1905. Today about half a million people visit the valley every year, most \
of them in July and August, and many of them by canoe.

Dear Mr. Alvarez, thank you for your letter of the third. I am sorry that the chair arrived with \
a broken leg, and sorrier still that two weeks passed before anybody answered you. A new one was \
sent this morning; you need not return the old one. If you would rather have your money back, \
please write to me directly, and I will see to it on the same day. Yours sincerely, Judith \
Marlow.

To make the dough, stir the yeast into lukewarm milk with a spoonful of sugar and wait until it \
foams, about ten minutes. Add the flour, the salt, one egg and the soft butter, and knead until \
the dough no longer sticks to the bowl. Let it rise under a cloth until it has doubled. Press it \
flat, fold it three times, shape it into a loaf, and let it rise again for half an hour. Bake at \
190 degrees for thirty-five minutes. It is done when it sounds hollow.

Why does the moon always show us the same face? Because it turns once around its own axis in \
exactly the time that it takes to go once around the earth. This is no accident. Long ago the \
moon turned faster, and the earth's pull raised a bulge in its rock as the moon now raises the \
tides in our seas. The bulge was dragged around and slowed the turning, a little every century, \
until the two times agreed. Since then the bulge has pointed at us and nothing pulls at it any \
more. The other large moons of the planets do the same.

The court held that the notice was valid although it had been sent to the old address. The \
tenant had not told the landlord that he had moved; under clause 9 of the agreement it was for \
him to do so. That the landlord's agent had seen him in another street did not amount to \
knowledge. Nor could it help the tenant that he had in fact learned of the notice six days \
later, since by then the period in which he might have objected was over. The appeal was \
dismissed with costs.

She had been told that the archive closed at four, and it was a quarter to. The clerk, a young \
man with ink on his cuff, brought the third box without being asked. "You will want the letters \
from the winter," he said. "Everybody begins with the spring and then has to come back." He was \
right. The winter letters were short, and the handwriting, which in October had leaned like \
grass, stood upright in January as if someone had frightened it. On the last sheet there was \
nothing but a list: candles, soap, two needles, thread, and the name of a village that she could \
not find on any map.

Patients who took the drug slept forty minutes longer on average than those who took a placebo \
(95 percent interval: 22 to 58 minutes). There was no difference in how rested they felt in the \
morning. Twelve of 140 in the treated group stopped early, most of them because of headache, and \
five of 138 in the other. We do not know whether the effect lasts beyond the eight weeks of the \
study, and nobody over seventy took part.
"""
